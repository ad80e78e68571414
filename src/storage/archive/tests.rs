//! Tests of the archive as a whole.
