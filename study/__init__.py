"""Measure the papers' claims with one code base.

    python -m study --scale cpu --out runs/study [--tasks DIR] [--text FILE...]

hypothesis.py hypotheses/      what is claimed, by which table, and what would refute it
variants.py presets.py jobs.py the runs that hypotheses need, each once
datasets.py synthetic_tasks.py tokenizers, corpora, tasks
runner.py state.py evaluate.py finetuning.py
                               run what is missing; a stopped study resumes at any step
worker_pool.py stop_request.py several jobs at a time; signals and the time limit
results.py metrics.py          run folders -> docs/study.json
verdict.py page.py hypothesis_section.py run_tables.py plots.py
                               docs/study.json -> docs/study.md, docs/study/
"""
