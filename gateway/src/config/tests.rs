//! Whole files: what is accepted, and how what is refused is explained.

use super::*;
