//! Against the real kernel, in network namespaces of their own. Needs root.

#[cfg(test)]
mod alike;
#[cfg(test)]
mod blind;
#[cfg(test)]
mod events;
#[cfg(test)]
mod expectation;
#[cfg(test)]
mod handshake;
#[cfg(test)]
mod inject;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod loops;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod reset;
#[cfg(test)]
mod stream;
#[cfg(test)]
mod takeover;
