//! Real control groups.
