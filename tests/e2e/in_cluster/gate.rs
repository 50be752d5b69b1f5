//! A way from the network of the pods to what listens on this machine's loopback.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// What goes in is taken to the address behind it.
pub(super) struct Gate {
    pub(super) address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Gate {
    /// Opens on this machine's side of the network of a pod; with port 0 on a free one.
    pub(super) async fn open(pod: IpAddr, port: u16, behind: String) -> Self {
        // Which address this machine has towards the pod; nothing is sent.
        let probe = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        probe.connect((pod, 1)).await.unwrap();
        let listener = TcpListener::bind((probe.local_addr().unwrap().ip(), port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let behind = behind.clone();
                connections.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(behind).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, tasks }
    }

    /// Ends it; its port is free again.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}
