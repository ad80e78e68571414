//! How do rows become answers? [`runner`] applies a stream's micro-batches to its rollups, all at one point in time;
//! [`table`] lets SQL read streams and views; [`pin`] gives a query one consistent instant of everything it reads;
//! [`join`] keeps rollups over two streams up to date; [`fill`] adds windows without rows; [`changes`] follows a query's
//! result as it changes; [`options`] is what a view's definition says besides its query.

pub mod bounds;
pub mod changes;
pub mod fill;
pub mod join;
pub mod options;
pub mod pin;
pub mod runner;
pub mod table;
