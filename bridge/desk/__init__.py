"""The operator's desk: asks engine, broker and bridge, and acts when told to.  Prints nothing."""
