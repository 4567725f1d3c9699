"""The instrument that measures this service beside others, in one run on one machine: `python -m bench`.

Data flow     `measures` put load (`load`, processes of its own) on `systems`, each on a fresh database of one
              PostgreSQL (`postgres`); `report` and `plots` tell what came of it.
Rules         Figures are compared within a run only. Rounds are interleaved: every system once, then again.
              What reads frames is a raw asyncio protocol (`frames`), so that it is not what is measured.
"""
