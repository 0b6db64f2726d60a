#!/bin/sh
# Several methods on the same stream of edits, one table in the end: results/$RUN/results.md, and a page with plots.
# The same command again resumes what is not finished.
#
#   examples/sweep.sh                                            three methods, 100 edits of tiny-world
#   METHODS=nmke,pnke,alphaedit EDITS=2000 RUN=llama3 examples/sweep.sh \
#       model=llama3-8b model.path=/models/llama3-8b data=file data.path=counterfact-edit.json batch_size=10
set -eu
PYTHON=${PYTHON:-python}
METHODS=${METHODS:-nmke,alphaedit,memit} SEEDS=${SEEDS:-0} EDITS=${EDITS:-100} RUN=${RUN:-sweep}
$PYTHON -m easyedit_neuron --multirun "method=$METHODS" "seed=$SEEDS" "edits=$EDITS" "run=$RUN" "$@"
cat "results/$RUN/results.md"
