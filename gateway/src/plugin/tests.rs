//! Facts about plugins, shown with real WebAssembly.
