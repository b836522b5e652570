//! Calls of the wire's API that the host library has no word for: typed messages, as a runtime sends them.

use protobuf::Message;

use crate::raw::Reply;
use crate::vm::Vm;

impl Vm {
    /// A method of `grpc.AgentService`; an answer with a code is the error.
    pub fn agent<A: Message>(&self, method: &str, request: &impl Message) -> Result<A, Reply> {
        self.api("grpc.AgentService", method, request)
    }

    /// A method of `hyperstart.v1.Guest`.
    pub fn guest<A: Message>(&self, method: &str, request: &impl Message) -> Result<A, Reply> {
        self.api("hyperstart.v1.Guest", method, request)
    }

    fn api<A: Message>(
        &self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<A, Reply> {
        let request = request.write_to_bytes().expect("a message can be written");
        let reply = self.raw().call(1, service, method, &request);
        if reply.code != 0 {
            return Err(reply);
        }
        Ok(A::parse_from_bytes(&reply.payload).expect("the answer is of its type"))
    }
}
