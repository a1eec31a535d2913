//! The seeds, by what they are made from.

mod certificates;
mod record;
mod texts;
mod vectors;
mod world;

use crate::Seeds;

/// All of them.
pub fn make() -> Seeds {
    let mut seeds = Seeds::default();
    vectors::add(&mut seeds);
    world::add(&mut seeds);
    certificates::add(&mut seeds);
    record::add(&mut seeds);
    texts::add(&mut seeds);
    seeds
}
