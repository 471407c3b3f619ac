{{/* What all objects and pods of the chart have in common. Arguments: (dict "root" $ "role" "operator"). */}}

{{- define "tidemill.name" -}}
{{ .root.Release.Name | trunc 40 | trimSuffix "-" }}-{{ .role }}
{{- end }}

{{- define "tidemill.selector" -}}
app.kubernetes.io/name: tidemill
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "tidemill.labels" -}}
{{ include "tidemill.selector" . }}
app.kubernetes.io/part-of: tidemill
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "tidemill.image" -}}
{{- $image := .root.Values.image -}}
{{- $name := printf "%s-%s" $image.repository .role -}}
{{- with index $image.digests .role }}{{ $name }}@{{ . }}{{ else }}{{ $name }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "tidemill.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tidemill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The environment of every process: settings, then secrets, then what is the chart's own. */}}
{{- define "tidemill.environment" -}}
envFrom:
  - configMapRef: {name: {{ include "tidemill.name" (dict "root" .root "role" "config") }}}
  {{- with .root.Values.credentials.existingSecret }}
  - secretRef: {name: {{ . }}, optional: true}
  {{- end }}
env:
  - {name: TIDEMILL_STATE, value: /var/lib/tidemill}
  - {name: TIDEMILL_LOG_FORMAT, value: json}
  - {name: TIDEMILL_METRICS_HOST, value: 0.0.0.0}
  - {name: TIDEMILL_METRICS_PORT, value: "9464"}
  {{- if eq .root.Values.scope "namespace" }}
  - name: TIDEMILL_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  {{- end }}
{{- end }}

{{/* The only folders that a process may write to. They go with the pod: what lasts is in Kafka, the lake and the API. */}}
{{- define "tidemill.mounts" -}}
- {name: state, mountPath: /var/lib/tidemill}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "tidemill.volumes" -}}
- {name: state, emptyDir: {}}
- {name: tmp, emptyDir: {}}
{{- end }}

{{- define "tidemill.pullSecrets" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* Changes with the settings, so that a pod that read the old ones is replaced. */}}
{{- define "tidemill.config" -}}
tidemill.dev/config: {{ toJson .Values.settings | sha256sum | trunc 16 | quote }}
{{- end }}

{{/* Where the pods of models are. */}}
{{- define "tidemill.namespaces" -}}
namespaceSelector:
  {{- if eq .Values.scope "cluster" }}
  any: true
  {{- else }}
  matchNames: [{{ .Release.Namespace }}]
  {{- end }}
{{- end }}
