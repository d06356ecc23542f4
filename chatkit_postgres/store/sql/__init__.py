"""Every statement the store runs. Each names its owner; each is one transaction and one round trip.

Three rules hold throughout:

- A compare-and-set updates the row it compares *first*, and what follows depends on its RETURNING. A subquery
  in WHERE is not read again after a lock wait, so it may compare with a row that is already gone.
- The owner is the first column of every key. A statement compares it wherever it looks for rows; where it inserts, the
  owner is a value, and with it part of what a conflict is found by.
- The outer SELECT of a write reads the state from before the statement. It only serves to tell
  an absent thread from one that refused the write; no decision to write rests on it.
"""
