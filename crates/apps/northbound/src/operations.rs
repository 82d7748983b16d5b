//! What the operator API needs from a manager.

use std::future::Future;
use std::pin::Pin;

use futures_util::Stream;
use vnfpool_model::{PoolHandle, PoolSpec};
use vnfpool_transport::Identity;

use crate::api::{
    Applied, AuditEntry, Event, FenceRequest, PardonRequest, Status, SwitchoverDone,
    SwitchoverRequest, Token, TokenRequest,
};
use crate::problem::Problem;

/// Events as they happen. It ends when the reader falls too far behind or the manager stops; the
/// reader then asks again, after the last event it saw.
pub type EventStream = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// What an operator can do. Implement with `async fn`; `by` is who asked, for the audit log, and
/// is an operator always. The router bounds every call in time ([`crate::router`]).
pub trait Operations: Send + Sync + 'static {
    /// Everything at a glance.
    fn status(&self) -> impl Future<Output = Result<Status, Problem>> + Send;

    /// All pools as they were applied, by handle.
    fn pools(&self) -> impl Future<Output = Result<Vec<PoolSpec>, Problem>> + Send;

    /// Creates a pool or changes it. `spec` is valid in itself; whether it overlaps other pools
    /// ([`vnfpool_config::overlaps`]) is for the implementation to refuse, in one step with the
    /// change. Answers once the change is durable.
    fn apply_pool(
        &self,
        spec: PoolSpec,
        by: &Identity,
    ) -> impl Future<Output = Result<Applied, Problem>> + Send;

    /// Deletes a pool: its slots are closed, its elements can no longer register. Answers once
    /// every element that may serve it has confirmed that it does not, or is fenced.
    fn delete_pool(
        &self,
        handle: &PoolHandle,
        by: &Identity,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Makes a one-time token. Its time to live is between one second and thirty days.
    fn create_token(
        &self,
        request: TokenRequest,
        by: &Identity,
    ) -> impl Future<Output = Result<Token, Problem>> + Send;

    /// Hands a slot over to its standby; answers when the new active serves, or was refused.
    fn switchover(
        &self,
        pool: &PoolHandle,
        request: SwitchoverRequest,
        by: &Identity,
    ) -> impl Future<Output = Result<SwitchoverDone, Problem>> + Send;

    /// Takes the operator's word that an element is off: a fencing proof.
    fn fence(
        &self,
        pool: &PoolHandle,
        request: FenceRequest,
        by: &Identity,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Takes the operator's word that an element may be armed again.
    fn pardon(
        &self,
        pool: &PoolHandle,
        request: PardonRequest,
        by: &Identity,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// The newest entries of the audit log, oldest first, at most `lines`.
    fn audit(&self, lines: usize) -> impl Future<Output = Result<Vec<AuditEntry>, Problem>> + Send;

    /// Events after number `after`, as far as they are still kept, then new ones as they happen;
    /// only new ones with none.
    fn events(
        &self,
        after: Option<u64>,
    ) -> impl Future<Output = Result<EventStream, Problem>> + Send;
}
