//! Places for clients that have logged in. Some are kept for administrators, so that they can come in and look when all
//! others are taken (PostgreSQL's `superuser_reserved_connections`).

use std::sync::Arc;

use parking_lot::Mutex;
use pgwire::error::PgWireError;

use super::error::info;

/// See the file header.
pub struct Places {
    most: usize,
    reserved: usize,
    taken: Mutex<usize>,
}

/// One of them, given back when it is dropped.
pub struct Place(Arc<Places>);

impl Places {
    /// So many, the last of which are `reserved`.
    pub fn new(most: usize, reserved: usize) -> Arc<Places> {
        Arc::new(Places { most, reserved, taken: Mutex::default() })
    }

    /// Takes one for somebody who has come in.
    pub fn take(self: &Arc<Self>, is_admin: bool) -> Result<Place, PgWireError> {
        let kept = if is_admin { 0 } else { self.reserved.min(self.most.saturating_sub(1)) };
        let mut taken = self.taken.lock();
        if *taken < self.most - kept {
            *taken += 1;
            return Ok(Place(Arc::clone(self)));
        }
        let mut refusal = info("FATAL", "53300", "too many connections");
        refusal.hint = Some(format!("The limit is {} connections.", self.most));
        if *taken < self.most {
            refusal.detail = Some(format!("The last {kept} are kept for administrators."));
        }
        Err(PgWireError::UserError(Box::new(refusal)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.taken.lock() -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_places_are_for_administrators() {
        let places = Places::new(3, 2);
        let first = places.take(false).unwrap_or_else(|err| panic!("{err}"));
        let refused = places.take(false).err().expect("the others are kept").to_string();
        assert!(refused.contains("too many connections"), "{refused}");
        let admins: Vec<Place> = (0..2).map(|_| places.take(true).unwrap_or_else(|err| panic!("{err}"))).collect();
        assert!(places.take(true).is_err());
        drop(admins);
        assert!(places.take(false).is_err());
        drop(first);
        assert!(places.take(false).is_ok());
        assert!(Places::new(1, 3).take(false).is_ok(), "one is left to others");
    }
}
