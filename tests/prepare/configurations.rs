//! Cluster configurations that make a difference to certificates or kubeconfigs. All are ones with which kubeadm joins.

/// One of them.
pub(crate) struct Configuration {
    pub(crate) name: &'static str,
    /// kubeadm's ClusterConfiguration.
    pub(crate) cluster: &'static str,
    /// Of the machine that joins.
    pub(crate) address: &'static str,
    /// Of the CAs, which were made once; the leaves follow the configuration.
    pub(crate) ca_algorithm: &'static str,
    /// Whether kubeadm validates it without objection. A join never does.
    pub(crate) valid: bool,
}

macro_rules! cluster {
    ($text:literal) => {
        concat!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.37.2\n", $text)
    };
}

pub(crate) const CONFIGURATIONS: &[Configuration] = &[
    Configuration {
        name: "all defaults",
        cluster: cluster!("controlPlaneEndpoint: cp.example:6443\n"),
        address: "10.0.0.2",
        ca_algorithm: "RSA-2048",
        valid: true,
    },
    Configuration {
        name: "ECDSA P-256, endpoint an address with another port",
        cluster: cluster!("controlPlaneEndpoint: 10.0.0.100:8443\nencryptionAlgorithm: ECDSA-P256\n"),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "ECDSA P-384, endpoint without a port",
        cluster: cluster!("controlPlaneEndpoint: cp.example\nencryptionAlgorithm: ECDSA-P384\n"),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P384",
        valid: true,
    },
    Configuration {
        name: "RSA CAs with ECDSA certificates of 30 hours",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: ECDSA-P256\ncertificateValidityPeriod: 30h0m0s\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "RSA-2048",
        valid: true,
    },
    Configuration {
        name: "ECDSA CAs with RSA certificates that end after 2050",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: RSA-3072\ncertificateValidityPeriod: 262800h0m0s\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P384",
        valid: true,
    },
    Configuration {
        name: "IPv6",
        cluster: cluster!(
            "controlPlaneEndpoint: '[fd00::100]:6443'\nencryptionAlgorithm: ECDSA-P256\nnetworking: {serviceSubnet: \
             'fd00:1::/108', podSubnet: 'fd00:2::/64', dnsDomain: k8s.example}\n"
        ),
        address: "fd00::2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "dual stack, IPv4 first",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: ECDSA-P256\nnetworking: {serviceSubnet: \
             '10.97.128.0/17,fd00:1::/108'}\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "dual stack, IPv6 first",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: ECDSA-P256\nnetworking: {serviceSubnet: \
             'fd00:1::/108,10.97.0.0/16'}\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "external etcd, RSA-4096",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: RSA-4096\netcd:\n  external:\n    endpoints: \
             ['https://e1:2379']\n    caFile: /etc/kubernetes/pki/external-ca.crt\n    certFile: \
             /etc/kubernetes/pki/external.crt\n    keyFile: /etc/kubernetes/pki/external.key\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "further names: capitals, wildcards, doubles, addresses",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: ECDSA-P256\napiServer:\n  certSANs: \
             [ELB.Example, '*.w.example', 10.0.0.2, 192.168.7.7, 'fd00::7', n2, a.example, a.example]\netcd:\n  local:\n    \
             serverCertSANs: [etcd.example, 10.0.0.9, '::1']\n    peerCertSANs: ['*.peers.example', 10.0.0.8]\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "a name of the cluster that YAML would read as a number",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: ECDSA-P256\nclusterName: '0x1F'\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "a name of the cluster with blanks, quotes and colons",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: ECDSA-P256\nclusterName: \"it's: a 'cluster' #1, \
             ümlaut\"\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "another directory for the certificates",
        cluster: cluster!(
            "controlPlaneEndpoint: cp.example:6443\nencryptionAlgorithm: ECDSA-P256\ncertificatesDir: \
             /etc/kubernetes/own/pki/\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: true,
    },
    Configuration {
        name: "further names that are none",
        cluster: cluster!(
            "controlPlaneEndpoint: 010.0.0.100\nencryptionAlgorithm: ECDSA-P256\napiServer:\n  certSANs: [a_b, 'x y', \
             '*.*.example', '*', 010.0.0.7, '::ffff:10.0.0.6', '10.0.0.0/8', x.example.]\netcd:\n  local:\n    \
             serverCertSANs: [Etcd.example]\n    peerCertSANs: ['', ' ']\n"
        ),
        address: "10.0.0.2",
        ca_algorithm: "ECDSA-P256",
        valid: false,
    },
];
