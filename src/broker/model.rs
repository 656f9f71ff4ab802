//! The pure model of a store: for the simulation and the contract suite.
