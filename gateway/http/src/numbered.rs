//! Header values that hold one number, such as `Age`: hits within one second need the same values.

use std::cell::RefCell;
use std::thread::LocalKey;

use http::HeaderValue;

/// The last values that this thread made, each at the index of its number.
pub(crate) struct NumberedValues([Option<(i64, HeaderValue)>; PLACES]);

/// A power of two. Numbers with equal remainders share one place.
const PLACES: usize = 64;

impl NumberedValues {
    pub(crate) const fn new() -> RefCell<Self> {
        RefCell::new(Self([const { None }; PLACES]))
    }
}

/// The value for this number: the one that was made before, or a new one.
pub(crate) fn value(
    values: &'static LocalKey<RefCell<NumberedValues>>,
    number: i64,
    make: impl FnOnce() -> HeaderValue,
) -> HeaderValue {
    values.with_borrow_mut(|NumberedValues(places)| {
        let place = &mut places[number.rem_euclid(PLACES as i64) as usize];
        match place {
            Some((known, value)) if *known == number => value.clone(),
            _ => {
                let value = make();
                *place = Some((number, value.clone()));
                value
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_share_a_place_keep_their_own_values() {
        thread_local!(static VALUES: RefCell<NumberedValues> = const { NumberedValues::new() });
        let of = |number: i64| value(&VALUES, number, || number.into());
        for number in [0, 64, 0, -64, -1, 63, i64::MIN, i64::MAX] {
            assert_eq!(of(number), number.to_string());
            assert_eq!(of(number), number.to_string());
        }
    }
}
