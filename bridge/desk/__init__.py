"""The operator's desk: asks engine, broker and bridge, and acts when told to.  Prints nothing.

Commands: `tasks`, `why` (with `facts` and `verdict`), `incidents` (also `retry`), `release`, `top`,
`topics`, `parked` (with `parked_message`), `origins` (`config show`), `proposal` (`init`).
Shared: `asking` (how engine and bridge are asked), `choosing` (which tasks an act is for, and what
came of it), `process_topics` (the topics of a model), and `tasks.pause_before` (pause or lease).
"""
