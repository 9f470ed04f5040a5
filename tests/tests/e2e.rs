//! Every suite, in one binary.
