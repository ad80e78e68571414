//! Logweir: one binary; logs in, SQL out.

pub mod error;
pub mod options;
pub mod position;
pub mod registry;
pub mod time;

pub mod frame;
