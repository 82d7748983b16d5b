//! Against the real kernel, in network namespaces of their own. Needs root.

#[cfg(test)]
mod ends;
#[cfg(test)]
mod hold;
#[cfg(test)]
mod world;
