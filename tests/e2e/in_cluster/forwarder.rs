//! A TCP forwarder from the pod network to a loopback address of this machine.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Forwards connections until it is closed.
pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Forwarder {
    /// Listens on this machine's address towards a pod. Port 0 selects a free port.
    pub(crate) async fn open(pod: IpAddr, port: u16, target: String) -> Self {
        // Connecting a UDP socket selects the local address and sends nothing.
        let probe = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        probe.connect((pod, 1)).await.unwrap();
        let listener = TcpListener::bind((probe.local_addr().unwrap().ip(), port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, tasks }
    }

    /// Stops forwarding and releases the port.
    pub(crate) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}
