// Answers the tasks of topic payment-processing: amount, currency in, paymentStatus out.
// Over 1000 is the BPMN error PAYMENT_ERROR; 502 fails at the first attempt, 503 at every one;
// 202 stays pending for PENDING_SECONDS, which extendLock tells, and is paid then.
package main
