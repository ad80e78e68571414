//! A value whose type the compiler need not look into.
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
