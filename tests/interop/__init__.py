"""Against authorization servers that others wrote, each a process of its own on loopback: oidc-provider and glewlwyd."""
