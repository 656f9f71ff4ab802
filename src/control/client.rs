//! The client of the control API that every command uses.
