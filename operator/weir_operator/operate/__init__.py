"""The operator: status of policies, life of trust exceptions, serving certificates. One active replica, with kopf."""
