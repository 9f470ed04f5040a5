//! Composition root: configuration in, running gateway out.
