"""The papers' claims, measured with one code base.

    python -m study --scale cpu --out runs/study [--tasks DIR] [--text FILE...]

claims/      what is claimed, by which table, what would count against it: arms and statements
claim.py arms.py scales.py compute.py    what a claim, an arm, a scale and a cost are
plan.py      the runs that claims need, each once
materials.py made.py    tokenizers, corpora, tasks
runner.py exam.py deadline.py    does what is not done; stops and goes on at any point
together.py  several works at a time, a core each
collect.py   run folders -> docs/study.json
measures.py judge.py    numbers -> verdicts
page.py blocks.py svg.py curves.py       docs/study.json -> study.md, study.html, curves/
"""
