import com.fasterxml.jackson.databind.ObjectMapper;
import com.rabbitmq.client.*;
import java.util.Map;
import java.util.concurrent.Semaphore;

/**
 * Answers the tasks of topic payment-processing: amount, currency in, paymentStatus out. Over 1000
 * is the BPMN error PAYMENT_ERROR; 502 fails at the first attempt, 503 at every one; 202 stays
 * pending for PENDING_SECONDS, which extendLock tells, and is paid then.
 */
public class PaymentWorker {
  record Answer(String outcome, Map<String, ?> body) {}

  static final Map<String, String> ENV = System.getenv();
  static final ObjectMapper JSON = new ObjectMapper();
  static final Semaphore HAND = new Semaphore(1); // held while a message is in hand, and by the stop
  static Channel channel;

  static Answer work(Delivery task) throws Exception {
    var body = JSON.readTree(task.getBody());
    var amount = body.at("/variables/amount");
    if (!amount.isNumber()) return new Answer("failure", Map.of("errorMessage", "amount is no number"));
    if (amount.asDouble() > 1000)
      return new Answer("bpmnError", Map.of("errorCode", "PAYMENT_ERROR", "errorMessage", amount + ": over 1000"));
    if (amount.asDouble() == 503 || amount.asDouble() == 502 && body.path("retries").isNull())
      return new Answer("failure", Map.of("errorMessage", "the payment gateway answered " + amount));
    if (amount.asDouble() == 202) {
      tell(task, new Answer("extendLock", Map.of("newDuration", 600_000, "variables", Map.of("paymentStatus", "pending"))));
      Thread.sleep(1000 * Long.parseLong(ENV.getOrDefault("PENDING_SECONDS", "5")));
    }
    var status = amount.asText() + " " + body.at("/variables/currency").asText("EUR");
    return new Answer("complete", Map.of("variables", Map.of("paymentStatus", status)));
  }

  static void tell(Delivery task, Answer answer) throws Exception {
    var echo = new AMQP.BasicProperties.Builder().correlationId(task.getProperties().getCorrelationId())
        .headers(Map.of("outcome", answer.outcome())).deliveryMode(2).build();
    channel.basicPublish("", task.getProperties().getReplyTo(), true, echo, JSON.writeValueAsBytes(answer.body()));
    channel.waitForConfirmsOrDie();
  }

  static void handle(String tag, Delivery task) {
    HAND.acquireUninterruptibly();
    try {
      Answer answer;
      try {
        answer = work(task);
      } catch (java.io.IOException | RuntimeException error) {
