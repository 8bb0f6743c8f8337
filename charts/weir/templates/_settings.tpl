{{/* What `weir_operator serve --settings` reads. */}}
{{- define "weir.settings" -}}
{{ dict
  "pullPolicy" .Values.image.pullPolicy
  "imagePullSecrets" .Values.injection.imagePullSecrets
  "initResources" .Values.injection.initResources
  "sidecarResources" .Values.injection.sidecarResources
| toJson }}
{{- end }}
