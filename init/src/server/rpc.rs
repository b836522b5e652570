//! From a request's bytes to a call of the domain, and back: the one place that logs an error or makes a reply of one.
//!
//! A service is a table of methods by name. Each entry knows its request's type and the domain call; the rest is the
//! same for all, and is written (and compiled) once.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use protobuf::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use ttrpc::asynchronous::{MethodHandler, Service, TtrpcContext};
use ttrpc::proto::{Request, Response};

use crate::error::{Code, Error, Result};
use crate::log;
use crate::sandbox::Sandbox;

type Answer = oneshot::Sender<Answered>;
type LocalFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>>>>>;
type Call = Box<dyn FnOnce(Rc<Sandbox>) -> LocalFuture + Send>;

/// What becomes of a call whose caller goes away.
#[derive(Debug, Clone, Copy)]
enum Abandoned {
    /// It changes something: half of it would be worse than all of it.
    RunsToItsEnd,
    /// It only waits: it is dropped, and with it what it held.
    IsDropped,
    /// As that; and an answer that nobody took any more is given back, since nobody else would be told it.
    IsGivenBack(GiveBack),
}

type GiveBack = fn(&Sandbox, &[u8]);

/// A result on its way to the caller.
struct Answered {
    result: Result<Vec<u8>>,
    /// Dropped with the result, or sent once the result is taken.
    taken: oneshot::Sender<()>,
}

impl Answered {
    fn take(self) -> Result<Vec<u8>> {
        self.taken.send(()).ok(); // most calls do not ask
        self.result
    }
}

struct Job {
    method: &'static str,
    call: Call,
    abandoned: Abandoned,
    answer: Answer,
}

/// The way to the task that owns the sandbox.
#[derive(Clone)]
pub struct Domain(mpsc::UnboundedSender<Job>);

impl Domain {
    pub fn start(sandbox: Rc<Sandbox>) -> Self {
        let (jobs, mut receiver) = mpsc::unbounded_channel::<Job>();
        spawn_local(async move {
            while let Some(job) = receiver.recv().await {
                spawn_local(run(job, Rc::clone(&sandbox)));
            }
        });
        Self(jobs)
    }
}

async fn run(job: Job, sandbox: Rc<Sandbox>) {
    let Job { method, call, abandoned, mut answer } = job;
    let call = call(Rc::clone(&sandbox));
    let result = match abandoned {
        Abandoned::RunsToItsEnd => call.await,
        Abandoned::IsDropped | Abandoned::IsGivenBack(_) => tokio::select! {
            biased;
            result = call => result,
            () = answer.closed() => return,
        },
    };
    if let Err(err) = &result {
        log::warn!("{method}: {err}");
    }
    let kept = match (abandoned, &result) {
        (Abandoned::IsGivenBack(give_back), Ok(payload)) => Some((give_back, payload.clone())),
        _ => None,
    };
    let (taken, was_taken) = oneshot::channel();
    if answer.send(Answered { result, taken }).is_err() {
        log::debug!("{method}: the caller is gone");
    }
    if let Some((give_back, payload)) = kept
        && was_taken.await.is_err()
    {
        give_back(&sandbox, &payload);
    }
}

/// A service's methods by name, as they are on the wire.
pub struct Table {
    name: &'static str,
    domain: Domain,
    methods: HashMap<String, Box<dyn MethodHandler + Send + Sync>>,
}

impl Table {
    pub fn new(name: &'static str, domain: &Domain) -> Self {
        Self { name, domain: domain.clone(), methods: HashMap::new() }
    }

    /// Serves `method` by a call that changes something.
    pub fn serve<Q, A, F>(self, method: &'static str, handler: fn(Rc<Sandbox>, Q) -> F) -> Self
    where
        Q: Message,
        A: Message,
        F: Future<Output = Result<A>> + 'static,
    {
        self.insert(method, handler, Abandoned::RunsToItsEnd)
    }

    /// Serves `method` by a call that waits for something, for as long as its caller does.
    pub fn serve_waiting<Q, A, F>(
        self,
        method: &'static str,
        handler: fn(Rc<Sandbox>, Q) -> F,
    ) -> Self
    where
        Q: Message,
        A: Message,
        F: Future<Output = Result<A>> + 'static,
    {
        self.insert(method, handler, Abandoned::IsDropped)
    }

    /// As [`Self::serve_waiting`], by a call whose answer nobody else gets: one that its caller did not take any more is
    /// given back.
    pub fn serve_taken<Q, A, F>(
        self,
        method: &'static str,
        handler: fn(Rc<Sandbox>, Q) -> F,
        give_back: GiveBack,
    ) -> Self
    where
        Q: Message,
        A: Message,
        F: Future<Output = Result<A>> + 'static,
    {
        self.insert(method, handler, Abandoned::IsGivenBack(give_back))
    }

    /// Answers UNIMPLEMENTED with the method's name.
    pub fn refuse(mut self, methods: &[&'static str]) -> Self {
        for method in methods {
            self.methods
                .insert((*method).to_owned(), Box::new(Refused { service: self.name, method }));
        }
        self
    }

    pub fn into_service(self) -> (String, Service) {
        (self.name.to_owned(), Service { methods: self.methods, streams: HashMap::new() })
    }

    fn insert<Q, A, F>(
        mut self,
        method: &'static str,
        handler: fn(Rc<Sandbox>, Q) -> F,
        abandoned: Abandoned,
    ) -> Self
    where
        Q: Message,
        A: Message,
        F: Future<Output = Result<A>> + 'static,
    {
        let handler: Handler =
            Arc::new(move |sandbox, payload| Box::pin(call(handler, sandbox, payload)));
        self.add(method, handler, abandoned);
        self
    }

    fn add(&mut self, method: &'static str, handler: Handler, abandoned: Abandoned) {
        let served = Served { method, handler, abandoned, domain: self.domain.clone() };
        self.methods.insert(method.to_owned(), Box::new(served));
    }
}

/// A call without its types: what follows is compiled once for all methods, for the size of PID 1.
type Handler = Arc<dyn Fn(Rc<Sandbox>, Vec<u8>) -> LocalFuture + Send + Sync>;

struct Served {
    method: &'static str,
    handler: Handler,
    abandoned: Abandoned,
    domain: Domain,
}

#[async_trait]
impl MethodHandler for Served {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let handler = Arc::clone(&self.handler);
        let call: Call = Box::new(move |sandbox| handler(sandbox, request.payload));
        Ok(answer(&self.domain, self.method, call, self.abandoned).await)
    }
}

async fn call<Q, A, F>(
    handler: fn(Rc<Sandbox>, Q) -> F,
    sandbox: Rc<Sandbox>,
    payload: Vec<u8>,
) -> Result<Vec<u8>>
where
    Q: Message,
    A: Message,
    F: Future<Output = Result<A>>,
{
    let request =
        Q::parse_from_bytes(&payload).map_err(|_err| malformed("request is not of its type"))?;
    drop(payload);
    handler(sandbox, request)
        .await?
        .write_to_bytes()
        .map_err(|_err| malformed("answer is too large"))
}

fn malformed(what: &str) -> Error {
    Error::new(Code::InvalidArgument, what)
}

/// An error is a reply like any other: ttrpc would wrap what it is given as an `Err` once more.
async fn answer(
    domain: &Domain,
    method: &'static str,
    call: Call,
    abandoned: Abandoned,
) -> Response {
    let (answer, result) = oneshot::channel();
    let job = Job { method, call, abandoned, answer };
    // Both ways of hearing nothing mean that the domain's task has ended: the guest is going down.
    let result = match domain.0.send(job) {
        Ok(()) => result.await.ok(),
        Err(_job) => None,
    };
    match result.map(Answered::take) {
        Some(Ok(payload)) => reply(ttrpc::Code::OK, "", payload),
        Some(Err(err)) => reply(wire_code(err.code()), err.message(), Vec::new()),
        None => reply(
            ttrpc::Code::UNAVAILABLE,
            &format!("{method}: the guest is going down"),
            Vec::new(),
        ),
    }
}

fn reply(code: ttrpc::Code, message: &str, payload: Vec<u8>) -> Response {
    let mut response = Response::new();
    response.set_status(ttrpc::get_status(code, message));
    response.payload = payload;
    response
}

pub fn wire_code(code: Code) -> ttrpc::Code {
    match code {
        Code::InvalidArgument => ttrpc::Code::INVALID_ARGUMENT,
        Code::NotFound => ttrpc::Code::NOT_FOUND,
        Code::AlreadyExists => ttrpc::Code::ALREADY_EXISTS,
        Code::PermissionDenied => ttrpc::Code::PERMISSION_DENIED,
        Code::ResourceExhausted => ttrpc::Code::RESOURCE_EXHAUSTED,
        Code::FailedPrecondition => ttrpc::Code::FAILED_PRECONDITION,
        Code::OutOfRange => ttrpc::Code::OUT_OF_RANGE,
        Code::DeadlineExceeded => ttrpc::Code::DEADLINE_EXCEEDED,
        Code::Unimplemented => ttrpc::Code::UNIMPLEMENTED,
        Code::Unavailable => ttrpc::Code::UNAVAILABLE,
        Code::Internal => ttrpc::Code::INTERNAL,
    }
}

struct Refused {
    service: &'static str,
    method: &'static str,
}

#[async_trait]
impl MethodHandler for Refused {
    async fn handler(&self, _: TtrpcContext, _: Request) -> ttrpc::Result<Response> {
        let message = format!("{}.{}: not supported by this guest", self.service, self.method);
        Ok(reply(ttrpc::Code::UNIMPLEMENTED, &message, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Receipt;
    use crate::config::Config;
    use crate::container::ContainerId;
    use std::time::Duration;
    use tokio::task::LocalSet;
    use tokio::time::{sleep, timeout};

    fn kill(sandbox: &Sandbox, id: &str) {
        sandbox.give_back_oom(ContainerId::new(id).unwrap());
    }

    /// Answers with the id of the next container that lost a process.
    fn ask(domain: &Domain) -> oneshot::Receiver<Answered> {
        let call: Call = Box::new(|sandbox| {
            Box::pin(async move { Ok(sandbox.next_oom().await.as_str().as_bytes().to_vec()) })
        });
        let give_back: GiveBack = |sandbox, id| kill(sandbox, std::str::from_utf8(id).unwrap());
        let (answer, result) = oneshot::channel();
        let abandoned = Abandoned::IsGivenBack(give_back);
        domain.0.send(Job { method: "Ask", call, abandoned, answer }).ok().unwrap();
        result
    }

    async fn hear(answer: oneshot::Receiver<Answered>) -> String {
        let answered = timeout(Duration::from_secs(60), answer).await.unwrap().unwrap();
        String::from_utf8(answered.take().unwrap()).unwrap()
    }

    /// A caller that goes before the event, with it, or with the answer in its hands unopened: the next one is told.
    #[tokio::test]
    async fn what_a_caller_did_not_take_is_told_to_the_next() {
        let test = async {
            let sandbox = Rc::new(Sandbox::new(Config::default(), Receipt::start()).unwrap());
            let domain = Domain::start(Rc::clone(&sandbox));
            let settle = || sleep(Duration::from_millis(20));
            drop(ask(&domain));
            kill(&sandbox, "before");
            assert_eq!(hear(ask(&domain)).await, "before");
            let waiting = ask(&domain);
            settle().await;
            kill(&sandbox, "with");
            drop(waiting);
            assert_eq!(hear(ask(&domain)).await, "with");
            let unopened = ask(&domain);
            kill(&sandbox, "after");
            settle().await;
            drop(unopened);
            assert_eq!(hear(ask(&domain)).await, "after");
            let both = (ask(&domain), ask(&domain));
            settle().await;
            kill(&sandbox, "one");
            kill(&sandbox, "two");
            let mut told = [hear(both.0).await, hear(both.1).await];
            told.sort();
            assert_eq!(told, ["one", "two"]);
            let none = timeout(Duration::from_millis(50), ask(&domain)).await;
            assert!(none.is_err(), "nothing is told twice");
        };
        LocalSet::new().run_until(test).await;
    }
}
