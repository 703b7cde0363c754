//! What the token of a request may see and do. What a request names has to be in reach, or it is refused with 403; what
//! it does not name is left out where it is not in reach.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Api;
use super::problem::{Problem, ProblemType};
use crate::access::Opened;
use crate::handler::Handlers;
use crate::store::{Filter, StoreError};
use crate::task::{HandlerName, Reach, Task, TaskId};

/// Who sends a request: a token, or everybody where there are no tokens.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    token: Option<Opened>,
}

impl Caller {
    /// The token that the guard has let in with the request.
    pub(super) fn of(parts: &Parts) -> Self {
        Self { token: parts.extensions.get::<Opened>().cloned() }
    }

    /// Where its reach ends; none where it is endless.
    pub(super) fn limits(&self) -> Option<&Reach> {
        self.token.as_ref().map(|Opened { token, .. }| &token.reach).filter(|reach| !reach.is_everything())
    }

    pub(super) fn may_name(&self, id: &TaskId) -> Result<(), Problem> {
        match self.limits().filter(|reach| !reach.has_id(id)) {
            None => Ok(()),
            Some(_) => Err(self.out_of_reach(&format!("the id {id}")).with_id(id)),
        }
    }

    pub(super) fn may_use(&self, handler: &HandlerName) -> Result<(), Problem> {
        match self.limits().filter(|reach| !reach.has_handler(handler)) {
            None => Ok(()),
            Some(_) => Err(self.out_of_reach(&format!("the handler {handler}"))),
        }
    }

    /// The task, if it is in reach. The handler of one that is not stays unsaid.
    pub(super) fn may_see(&self, task: &Task) -> Result<(), Problem> {
        match self.limits().filter(|reach| !reach.has(task)) {
            None => Ok(()),
            Some(_) => {
                let id = &task.id;
                Err(self
                    .out_of_reach(&format!("the task {id}, which belongs to another handler"))
                    .with_id(id))
            }
        }
    }

    /// Refuses a token with limits what is about all tasks together.
    pub(super) fn may_do_all(&self, what: &str) -> Result<(), Problem> {
        self.limits().map_or(Ok(()), |_| Err(self.out_of_reach(what)))
    }

    /// Refuses a token with limits on ids what is about a handler with all its tasks.
    pub(super) fn may_steer(&self, handler: &HandlerName) -> Result<(), Problem> {
        self.may_use(handler)?;
        match self.limits().filter(|reach| reach.prefixes.is_some()) {
            None => Ok(()),
            Some(_) => Err(self.out_of_reach(&format!("the handler {handler} as a whole"))),
        }
    }

    /// Narrows a filter to what is in reach; one that names only what is not is refused.
    pub(super) fn narrow(&self, filter: Filter) -> Result<Filter, Problem> {
        let Some(reach) = self.limits() else { return Ok(filter) };
        if let Some(handler) = &filter.handler {
            self.may_use(handler)?;
        }
        if reach.narrowed(None, filter.prefix.as_deref()).is_nothing() {
            let prefix = filter.prefix.as_deref().unwrap_or_default();
            return Err(self.out_of_reach(&format!("ids that begin with {prefix}")));
        }
        Ok(Filter { reach: reach.clone(), ..filter })
    }

    /// The names of the handlers in reach.
    pub(super) fn names(&self, handlers: &Handlers) -> String {
        let is_in_reach = |name: &&HandlerName| self.limits().is_none_or(|reach| reach.has_handler(name));
        let names = handlers.iter().map(|handler| &handler.name).filter(is_in_reach);
        names.map(HandlerName::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Whether it would still be let in. What is answered over a long time asks again and again.
    pub(super) fn stands(&self, api: &Api) -> bool {
        let live = api.live.load();
        self.token.as_ref().map_or(live.tokens.is_empty(), |opened| live.tokens.still_open(opened))
    }

    /// Refuses who would not be let in any more: asked after everything that a client, or a task, can draw out.
    pub(super) fn may_go_on(&self, api: &Api) -> Result<(), Problem> {
        if self.stands(api) { Ok(()) } else { Err(Problem::token_over(self.token.is_some())) }
    }

    pub(super) fn out_of_reach(&self, what: &str) -> Problem {
        let name = self.token.as_ref().map_or("", |opened| opened.token.name.as_str());
        let detail = format!("The limits of the token {name} leave out {what}; nothing was changed.");
        Problem::new(ProblemType::OutOfReach, detail)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

impl Api {
    /// Refuses a task out of reach, before it is moved. Only limits on handlers need a look at the record.
    pub(super) async fn may_move(&self, caller: &Caller, id: &TaskId) -> Result<(), Problem> {
        if caller.limits().is_none() {
            return Ok(());
        }
        let task: Result<_, StoreError> = self.recorder.status(id).await;
        task?.map_or(Ok(()), |task| caller.may_see(&task))
    }
}
