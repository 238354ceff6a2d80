import com.fasterxml.jackson.databind.*;
import com.rabbitmq.client.*;
import java.util.Map;
import java.util.concurrent.*;

/** Takes amount and currency, answers paymentStatus; the rules are in the README beside it. */
public class PaymentWorker {
  interface Teller { void tell(String outcome, Map<String, ?> body) throws Exception; }
  static volatile int exitCode = 1; // unless it is told to stop

  static void work(JsonNode task, Teller to) throws Exception {
    JsonNode amount = task.at("/variables/amount"), currency = task.at("/variables/currency");
    if (!amount.isNumber()) throw new IllegalArgumentException("amount is no number");
    if (amount.asDouble() > 1000) {
      to.tell("bpmnError", Map.of("errorCode", "PAYMENT_ERROR", "errorMessage", amount + ": over 1000"));
    } else if (amount.asDouble() == 503 || amount.asDouble() == 502 && task.get("retries").isNull()) {
      to.tell("failure", Map.of("errorMessage", "the payment gateway answered " + amount));
    } else {
      if (amount.asDouble() == 202) {
        to.tell("extendLock", Map.of("newDuration", 600_000, "variables", Map.of("paymentStatus", "pending")));
        Thread.sleep(1000 * Long.parseLong(System.getenv().getOrDefault("PENDING_SECONDS", "5")));
      }
      to.tell("complete", Map.of("variables", Map.of("paymentStatus", amount.asText() + " " + currency.asText("EUR"))));
    }
  }

  public static void main(String[] args) throws Exception {
    var factory = new ConnectionFactory();
    factory.setUri(System.getenv("AMQP_URL"));
    factory.setAutomaticRecoveryEnabled(false); // a lost connection ends it: it is to be restarted
    var channel = factory.newConnection().createChannel();
    channel.addShutdownListener(cause -> { System.err.println(cause); Runtime.getRuntime().halt(exitCode); });
    channel.addReturnListener(unroutable -> Runtime.getRuntime().halt(1)); // its confirm comes next
    channel.confirmSelect();
    channel.basicQos(10);
    var hand = new Semaphore(1); // taken by the message in hand, and for ever by a stop
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      hand.acquireUninterruptibly();
      exitCode = 0;
      try {
        channel.abort(); // the broker has then taken every acknowledgement
      } catch (java.io.IOException closed) { /* what has come to the same */ }
    }));
    var messages = new LinkedBlockingQueue<Delivery>();
    var queue = System.getenv().getOrDefault("TASK_QUEUE", "payment-processing");
    channel.basicConsume(queue, false, (tag, message) -> messages.add(message), tag -> channel.abort());
    for (var json = new ObjectMapper(); ; hand.release()) {
      var message = messages.take();
      hand.acquire();
      var asked = message.getProperties();
      Teller to = (outcome, body) -> {
        var echo = new AMQP.BasicProperties.Builder().correlationId(asked.getCorrelationId())
            .headers(Map.of("outcome", outcome)).deliveryMode(2).build();
        channel.basicPublish("", asked.getReplyTo(), true, echo, json.writeValueAsBytes(body));
        channel.waitForConfirmsOrDie(); // a refused answer closes the channel: see the listener
        System.out.println(outcome + " " + asked.getMessageId());
      };
      try {
        work(json.readTree(message.getBody()), to);
      } catch (Exception error) {
        to.tell("failure", Map.of("errorMessage", error.toString()));
      }
      channel.basicAck(message.getEnvelope().getDeliveryTag(), false);
    }
  }
}
