package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// topicRequest is one topic of a fetchAndLock.
type topicRequest struct {
	TopicName    string
	LockDuration int64
}

// request is the body of every call about tasks.
type request struct {
	WorkerID             string
	MaxTasks             int
	AsyncResponseTimeout int64
	Topics               []topicRequest
	NewDuration          int64
	LockDuration         int64
	RetryTimeout         int64
	Retries              *int
}

// query is the body of a bulk query, as far as the bridge asks.
type query struct {
	ExternalTaskIDIn     []string `json:"externalTaskIdIn"`
	WorkerID             string
	LockExpirationAfter  string
	LockExpirationBefore string
}

// write appends the task as the engine shows it, with its variables where it is handed out.
func (t *task) write(to []byte, whole bool) []byte {
	to = append(to, `{"activityId":"task-1","activityInstanceId":"task-1:`...)
	to = append(append(to, t.id...), `","errorMessage":null,"executionId":"`...)
	to = append(append(to, t.id...), `","id":"`...)
	to = append(append(to, t.id...), `","lockExpirationTime":`...)
	to = date(to, t.locked)
	to = date(append(to, `,"createTime":`...), t.created)
	to = append(to, `,"processDefinitionId":"bench:1:1","processDefinitionKey":"bench","processDefinitionVersionTag":null,"processInstanceId":"`...)
	to = append(append(to, t.id...), `","tenantId":null,"retries":`...)
	if t.retries == nil {
		to = append(to, "null"...)
	} else {
		to = strconv.AppendInt(to, int64(*t.retries), 10)
	}
	to = append(append(to, `,"suspended":false,"workerId":"`...), t.worker...)
	to = append(append(append(to, `","topicName":"`...), t.topic...), `","priority":0,"businessKey":null`...)
	if whole {
		to = append(append(to, `,"extensionProperties":{},"variables":`...), t.variables...)
	}
	return append(to, '}')
}

func date(to []byte, at int64) []byte {
	if at == 0 {
		return append(to, "null"...)
	}
	to = time.UnixMilli(at).UTC().AppendFormat(append(to, '"'), dateForm)
	return append(to, '"')
}

// variables are the two of every instance, and one more of so many bytes.
func variables(size int) []byte {
	filling := ""
	if size > 0 {
		filling = fmt.Sprintf(`,"filling":{"type":"String","value":"%s","valueInfo":{}}`, bytes.Repeat([]byte{'x'}, size))
	}
	return []byte(`{"amount":{"type":"Integer","value":42,"valueInfo":{}},"currency":{"type":"String","value":"EUR","valueInfo":{}}` + filling + `}`)
}
