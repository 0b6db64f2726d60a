"""Tests that take minutes: only with EASYEDIT_NEURON_LONG=1, as ``make test-all`` sets it."""

import os

import pytest

IS_LONG = "EASYEDIT_NEURON_LONG" in os.environ
LONG = pytest.mark.skipif(not IS_LONG, reason="takes minutes: make test-all")
