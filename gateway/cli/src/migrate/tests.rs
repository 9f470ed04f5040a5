//! What translations say, and that nothing is dropped.
