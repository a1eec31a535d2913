//! A FHIR R4 record: parsed once keeping exact bytes, closed over its references, filtered by scope, digested, streamed.
//!
//! Synchronous and without I/O of its own: input comes through [`std::io::Read`], storage through traits that this
//! crate defines.

pub mod closure;
pub mod compare;
pub mod compartment;
pub mod dates;
pub mod digest;
pub mod facts;
pub mod frame;
pub mod hides;
pub mod identity;
pub mod json;
pub mod load;
pub mod loss;
pub mod mentions;
pub mod pool;
pub mod reference;
pub mod resource;
pub mod sample;
pub mod scope;
pub mod types;
