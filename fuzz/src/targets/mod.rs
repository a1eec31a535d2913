//! The targets, by what they read.

pub mod certificates;
pub mod log;
pub mod messages;
pub mod record;
#[cfg(feature = "servers")]
pub mod servers;
pub mod wallet;

/// Picks one of several readers by the first byte, so that one corpus serves them all, and gives it the rest.
fn choose<'a, T>(data: &'a [u8], readers: &'a [T]) -> Option<(&'a T, &'a [u8])> {
    let (first, rest) = data.split_first()?;
    readers.get(usize::from(*first)).map(|reader| (reader, rest))
}
