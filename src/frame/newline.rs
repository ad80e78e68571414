//! Lines: frames that end with `\n`.
