{{/* Names are fixed: the webhook configurations belong to the cluster, so there is one Weir in it. */}}

{{/* The labels of every object. Call with (dict "root" $ "component" NAME). */}}
{{- define "weir.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: weir
{{ include "weir.selector" . }}
{{- end }}

{{/* What tells the pods of a component from all others; must never change, a Deployment's selector cannot. */}}
{{- define "weir.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image by digest where one is given, else by tag, by default this version's. Call with (dict "root" $ "image" IMAGE). */}}
{{- define "weir.image" -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Namespaces whose pods are never offered to the webhook. Ours: it must be able to start by itself. */}}
{{- define "weir.excludedNamespaces" -}}
{{ concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | toJson }}
{{- end }}

{{/* What cert-manager's CA injector looks for on a webhook configuration; the operator fills in caBundle otherwise. */}}
{{- define "weir.caAnnotations" -}}
{{- if eq .Values.certificates.mode "CertManager" }}
  annotations:
    cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/weir-serving
{{- end }}
{{- end }}

{{/* A webhook's way to the serving replicas. Call with (dict "root" $ "path" PATH). */}}
{{- define "weir.webhook" -}}
clientConfig:
  service:
    name: weir-webhook
    namespace: {{ .root.Release.Namespace }}
    path: {{ .path }}
    port: 443
admissionReviewVersions: [v1]
sideEffects: None
matchPolicy: Equivalent
failurePolicy: {{ .root.Values.webhook.failurePolicy }}
timeoutSeconds: {{ .root.Values.webhook.timeoutSeconds }}
{{- end }}

{{- define "weir.notExcluded" -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: {{ include "weir.excludedNamespaces" . }}
{{- end }}

{{/* Both deployments satisfy the Pod Security Standard "restricted". */}}
{{- define "weir.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "weir.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods run, as values of a component say it. */}}
{{- define "weir.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Liveness and readiness, on plain HTTP, as the kubelet asks. */}}
{{- define "weir.probes" -}}
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /healthz, port: health}
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}
