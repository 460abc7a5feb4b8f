//! TLS libraries: the plaintext that programs give to them and take from them, and the connection that it belongs to.
//!
//! Comes in: calls of library functions (uprobes at sites that the agent chose) and the socket transfers that happen inside
//! them. Goes out: `Plain` records with plaintext, `Join` records that name an object's connection, `Close` of an object.
//!
//! A connection is never guessed (docs/adr/0011). An object is joined to a socket by a transfer of a TLS record inside a call on
//! the object ([`records`]), by the random number of its ClientHello, which was seen on the socket ([`hello`]), or, record by record,
//! by the authentication tag ([`rustls`]).

pub mod hello;
pub mod library;
pub mod maps;
pub mod object;
pub mod plain;
pub mod records;
pub mod rustls;
pub mod wire;
