
const search = document.getElementById("search");
const rows = Array.from(document.querySelectorAll("table.answers tbody tr"), row =>
  ({ row, text: Array.from(row.cells, cell => cell.textContent).join(" ").toLowerCase() }));
search.closest("p").hidden = false;
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let matches = 0;
  for (const { row, text } of rows) {
    row.hidden = !words.every(word => text.includes(word));
    matches += row.hidden ? 0 : 1;
  }
  document.getElementById("matches").textContent = words.length ? `${matches} of ${rows.length}` : "";
});
