//! Whole sockets, functions and successors, without a pool.

mod balancer;
mod ends;
mod functions;
mod hostile;
mod inherited;
mod left_out;
mod pair;
mod python;
mod roles;
mod stale;
mod successors;
