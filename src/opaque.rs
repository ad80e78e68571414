//! A value whose type the compiler need not look into, and traits of DataFusion without proofs that it would make again.
//!
//! For every async function the compiler proves that what it holds may move between threads, by walking through the
//! types of all fields. A plan's or a syntax tree's type is so large and so recursive that one such proof takes seconds,
//! and it is made again for each function: most of the time of a build. Behind `dyn Any + Send + Sync` the proof was
//! made once, where the value was put in.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// A shared `T`. Cheap to clone.
pub struct Opaque<T> {
    value: Arc<dyn Any + Send + Sync>,
    type_: PhantomData<fn() -> T>,
}

impl<T: Any + Send + Sync> Opaque<T> {
    pub fn new(value: T) -> Opaque<T> {
        Opaque { value: Arc::new(value), type_: PhantomData }
    }
}

impl<T> Clone for Opaque<T> {
    fn clone(&self) -> Self {
        Opaque { value: Arc::clone(&self.value), type_: PhantomData }
    }
}

impl<T: Any> Deref for Opaque<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.downcast_ref().expect("new puts a T in")
    }
}

impl<T: Any + fmt::Debug> fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Any + Send + Sync> From<T> for Opaque<T> {
    fn from(value: T) -> Self {
        Opaque::new(value)
    }
}

/// The method `scan` of a [`TableProvider`](datafusion::catalog::TableProvider), for a type with an async method
/// `plan_scan(state, projection, filters, limit)`; `scan_at_once!` is for one that is not async.
///
/// As `async_trait` writes it, the method has bounds on lifetimes, and under such bounds the compiler keeps nothing of its
/// proofs: that a filter may move between threads would be proved anew in each, for seconds. So the proof is left to a
/// function without bounds.
macro_rules! scan_boxed {
    ($type:ty) => {
        $crate::opaque::scan_method!(|this: $type, state, projection, filters, limit| {
            Box::pin(this.plan_scan(state, projection, filters, limit))
        });
    };
}

macro_rules! scan_at_once {
    ($type:ty) => {
        $crate::opaque::scan_method!(|this: $type, state, projection, filters, limit| {
            Box::pin(std::future::ready(this.plan_scan(state, projection, filters, limit)))
        });
    };
}

macro_rules! scan_method {
    (|$this:ident: $type:ty, $state:ident, $projection:ident, $filters:ident, $limit:ident| $boxed:block) => {
        fn scan<'s, 'a, 'b, 'c, 'f>(
            &'s self,
            state: &'a dyn datafusion::catalog::Session,
            projection: Option<&'b Vec<usize>>,
            filters: &'c [datafusion::logical_expr::Expr],
            limit: Option<usize>,
        ) -> std::pin::Pin<Box<dyn Future<Output = $crate::opaque::Scanned> + Send + 'f>>
        where
            's: 'f,
            'a: 'f,
            'b: 'f,
            'c: 'f,
            Self: 'f,
        {
            fn boxed<'a>(
                $this: &'a $type,
                $state: &'a dyn datafusion::catalog::Session,
                $projection: Option<&'a Vec<usize>>,
                $filters: &'a [datafusion::logical_expr::Expr],
                $limit: Option<usize>,
            ) -> futures::future::BoxFuture<'a, $crate::opaque::Scanned> $boxed
            boxed(self, state, projection, filters, limit)
        }
    };
}

pub(crate) use {scan_at_once, scan_boxed, scan_method};

/// What a scan gives.
pub type Scanned = datafusion::common::Result<Arc<dyn datafusion::physical_plan::ExecutionPlan>>;

/// The same for [`ExtensionPlanner`](datafusion::physical_planner::ExtensionPlanner): `extension(planner, node,
/// inputs, session, context)` plans at once.
macro_rules! plan_extension_at_once {
    () => {
        fn plan_extension<'s, 'a, 'b, 'c, 'd, 'e, 'g, 'h, 'f>(
            &'s self,
            planner: &'a dyn datafusion::physical_planner::PhysicalPlanner,
            node: &'b dyn datafusion::logical_expr::UserDefinedLogicalNode,
            _: &'c [&'d datafusion::logical_expr::LogicalPlan],
            inputs: &'e [Arc<dyn datafusion::physical_plan::ExecutionPlan>],
            session: &'g dyn datafusion::catalog::Session,
            context: &'h datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
        ) -> std::pin::Pin<Box<dyn Future<Output = $crate::opaque::Extended> + Send + 'f>>
        where
            's: 'f,
            'a: 'f,
            'b: 'f,
            'c: 'f,
            'd: 'f,
            'e: 'f,
            'g: 'f,
            'h: 'f,
            Self: 'f,
        {
            Box::pin(std::future::ready(self.extension(planner, node, inputs, session, context)))
        }
    };
}

pub(crate) use plan_extension_at_once;

/// What planning an extension gives.
pub type Extended = datafusion::common::Result<Option<Arc<dyn datafusion::physical_plan::ExecutionPlan>>>;
