//! Places for gateways: tests run side by side, but a machine carries only so many at once.
//!
//! Decision: only a test's first gateways are waited for. Who needs several takes them at
//! once ([`Places::reserve`]), and one more of a test that has some already starts
//! in any case, a place being left or not. A test is known by its runtime.
//!
//! Invariant: nobody holds a place and waits for another one, or tests that need several
//! would wait for each other for ever.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of this process.
pub static PLACES: LazyLock<Places> = LazyLock::new(|| Places::new(6));

/// So many places, and the tests that have some.
pub struct Places {
    room: Arc<Semaphore>,
    size: usize,
    tests: Arc<Mutex<HashMap<Id, Test>>>,
}

/// What a test has.
#[derive(Default)]
struct Test {
    /// Gateways that run or wait, and reservations.
    users: usize,
    /// For those that are to come.
    reserved: Option<OwnedSemaphorePermit>,
}

/// A test's stake in the places; given back by Drop.
pub struct Place {
    test: Id,
    tests: Arc<Mutex<HashMap<Id, Test>>>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Keeps what was reserved and not taken yet; given back by Drop.
pub struct Reservation(Place);

impl Places {
    pub fn new(size: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(size)),
            size,
            tests: Arc::default(),
        }
    }

    /// A place; waits for one if the test has none.
    pub async fn take(&self) -> Place {
        let (mut place, first) = self.enter();
        place.permit = match first {
            true => Some(self.wait(1).await),
            false => place.reserved().or_else(|| self.look(1)),
        };
        place
    }

    /// Places for so many gateways that this test starts next; waits for all of them if the
    /// test has none.
    pub async fn reserve(&self, gateways: usize) -> Reservation {
        let (place, first) = self.enter();
        let gateways = gateways.min(self.size);
        let permit = match first {
            true => Some(self.wait(gateways).await),
            false => self.look(gateways),
        };
        place.with_test(|test| test.reserved = permit);
        Reservation(place)
    }

    /// Notes one more user; answers whether it is the test's first.
    fn enter(&self) -> (Place, bool) {
        let place = Place {
            test: Handle::current().id(),
            tests: Arc::clone(&self.tests),
            permit: None,
        };
        let users = place.with_test(|test| {
            test.users += 1;
            test.users
        });
        (place, users == 1)
    }

    async fn wait(&self, places: usize) -> OwnedSemaphorePermit {
        let places = u32::try_from(places).expect("few");
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(places).await.expect("never closed")
    }

    fn look(&self, places: usize) -> Option<OwnedSemaphorePermit> {
        let places = u32::try_from(places).expect("few");
        Arc::clone(&self.room).try_acquire_many_owned(places).ok()
    }
}

impl Place {
    /// One of those that were reserved.
    fn reserved(&self) -> Option<OwnedSemaphorePermit> {
        self.with_test(|test| test.reserved.as_mut()?.split(1))
    }

    fn with_test<T>(&self, look: impl FnOnce(&mut Test) -> T) -> T {
        // A test that failed must not fail the others.
        let mut tests = self.tests.lock().unwrap_or_else(PoisonError::into_inner);
        look(tests.entry(self.test).or_default())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tests = self.tests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(test) = tests.get_mut(&self.test) {
            test.users -= 1;
            if test.users == 0 {
                tests.remove(&self.test);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.with_test(|test| test.reserved = None);
    }
}
