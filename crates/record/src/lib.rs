//! A FHIR R4 record: parsed once keeping exact bytes, closed over its references, filtered by scope, digested, streamed.
//!
//! Synchronous and without I/O of its own: input comes through [`std::io::Read`], storage through traits that this
//! crate defines.

pub mod dates;
pub mod facts;
pub mod sample;
pub mod loss;
pub mod compare;
pub mod identity;
pub mod frame;
pub mod digest;
pub mod hides;
pub mod json;
pub mod resource;
pub mod scope;
pub mod types;
pub mod closure;
pub mod compartment;
pub mod load;
pub mod pool;
pub mod reference;
