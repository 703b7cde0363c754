//! Why a move is not legal.

/// Why a change is not allowed. An answer, not an error: the record stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A launch of an id that is working.
    #[error("it is working")]
    Working,
    /// A launch of an id that has succeeded.
    #[error("it has succeeded")]
    Success,
    /// A launch or revoke of a success that is being undone.
    #[error("its success is being revoked")]
    Revoking,
    /// A launch with another handler than the one the id has.
    #[error("it belongs to another handler")]
    HandlerMismatch,
    /// A launch with another input, where the handler insists on the same.
    #[error("it was launched with another input")]
    InputMismatch,
    /// A launch with a key that has launched a run of the id before; an import of a record that is there already.
    #[error("this request has launched it before")]
    SameRequest,
    /// A launch whose condition on the record does not hold.
    #[error("it is not as the request demands")]
    Precondition,
    /// The id is unknown.
    #[error("it is not found")]
    NotFound,
    /// A cancel of an id that is not working.
    #[error("it is not working")]
    NotWorking,
    /// A cancel of a run that is being canceled, or its next attempt.
    #[error("it is being canceled")]
    Canceling,
    /// A retry or forget of an id that has not failed.
    #[error("it has not failed")]
    NotFailed,
    /// A revoke of an id that has not succeeded.
    #[error("it has not succeeded")]
    NotSuccess,
    /// A settle of a run that is not the present one, or a change of a state that the task has left.
    #[error("the run is over")]
    Stale,
    /// A drop of something of a task of whose outcome somebody is still to be told.
    #[error("its outcome is still to be told")]
    NoticeDue,
    /// A retry of a task whose input is not kept any more.
    #[error("its input was dropped")]
    InputDropped,
    /// A drop of details that were dropped before.
    #[error("its details were dropped before")]
    DetailsDropped,
}
