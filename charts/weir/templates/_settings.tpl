{{/* What `weir_operator serve --settings` reads. */}}
{{- define "weir.settings" -}}
{{ merge (ternary (dict "setup" "CNI") dict .Values.cni.enabled) (dict
  "pullPolicy" .Values.image.pullPolicy
  "imagePullSecrets" .Values.injection.imagePullSecrets
  "initResources" .Values.injection.initResources
  "sidecarResources" .Values.injection.sidecarResources
) | toJson }}
{{- end }}
