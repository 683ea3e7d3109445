//! Whether a TCP connection is taken.

use super::Reading;
use kiban_api::gate::TcpGate;
use tokio::net::{TcpStream, lookup_host};

pub(super) async fn measure(gate: &TcpGate) -> Reading {
    let address = &gate.address;
    let found: Vec<_> = match lookup_host(address.as_str()).await {
        Ok(found) => found.collect(),
        Err(error) => return Reading::no_data(format!("{address} is not found: {error}")),
    };
    match TcpStream::connect(found.as_slice()).await {
        Ok(_) => Reading::holds(format!("{address} takes connections")),
        Err(error) => Reading::fails(format!("{address} takes no connection: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiban_core::gate::GateState;

    async fn state(address: String) -> GateState {
        measure(&TcpGate { address }).await.state
    }

    #[tokio::test]
    async fn a_listener_holds_a_closed_port_fails_and_an_unknown_name_is_no_data() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(state(address.clone()).await, GateState::Holds);
        drop(listener);
        assert_eq!(state(address).await, GateState::Fails);
        assert_eq!(state("nobody.invalid:1".into()).await, GateState::NoData);
    }
}
