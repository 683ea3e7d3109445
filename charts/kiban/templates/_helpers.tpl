{{- define "kiban.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kiban.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "kiban.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kiban.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kiban.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kiban.labels" -}}
{{ include "kiban.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "kiban.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "kiban.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "kiban.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "kiban.imageUrl" -}}
{{- if .Values.imageEndpoint.url }}
{{- .Values.imageEndpoint.url }}
{{- else }}
{{- $scheme := ternary "https" "http" (not (empty .Values.imageEndpoint.tls.secretName)) }}
{{- printf "%s://%s.%s.svc:%v" $scheme (include "kiban.fullname" .) .Release.Namespace .Values.service.imagePort }}
{{- end }}
{{- end }}

{{- define "kiban.approvalPolicyName" -}}
{{- printf "%s-%s-approvals" .Release.Namespace (include "kiban.fullname" .) }}
{{- end }}
